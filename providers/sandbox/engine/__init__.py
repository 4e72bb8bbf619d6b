"""The sandbox's engine: it really trains, really draws and really films, on a plain CPU, at no cost.

It is no diffusion model and does not pretend to be one. What it shares with one is the contract: a LoRA with
the real architecture's tensor names and shapes, whose B matrices start at zero and are fitted by iterations;
pictures that show the character exactly as far as those matrices hold it; clips that move those pictures.
It never imports the identity scorer, so that nothing here can be tuned to please it at run time.
"""

LABEL = "sandbox"
"""Written into every still, clip and LoRA file."""

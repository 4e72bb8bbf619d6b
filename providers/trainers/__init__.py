"""The programs that train LoRAs on a machine of ours: their plans, their logs, and the worker that runs them."""

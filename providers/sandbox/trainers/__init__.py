"""Programs that stand for ai-toolkit, musubi-tuner and sd-scripts in a rehearsal: same names, same options, same lines.

Each folder stands for the real program's own; `site` holds stand-ins of the packages they are started and fed with.
"""

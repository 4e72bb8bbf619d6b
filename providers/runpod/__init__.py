"""RunPod: machines by the hour, over REST v2."""

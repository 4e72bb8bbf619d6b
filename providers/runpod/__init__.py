"""RunPod: machines by the hour over REST v2, and an endpoint of ours through its own package."""

"""The demo's own season: a small drawn cast, its places and clips, written to a folder like a person's own."""

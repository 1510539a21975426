"""The index on disk: manifest, shards of latents, packs; locking, checking, repairing and freeing it."""

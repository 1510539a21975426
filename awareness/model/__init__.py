"""Torch and transformers: text -> latents -> memory -> answer. Knows nothing of git or the store."""

"""Torch and transformers: text -> latents -> memory -> answer. Knows nothing of git or the store."""

import logging

# Where torchao is installed transformers imports it, and the two of them warn of kernels for other processors.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)

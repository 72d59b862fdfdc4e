"""A base model, its adapters and how it is asked.  Importing any of it hushes libraries that tell at once what they lack."""

import logging

for library in ("bitsandbytes", "torchao", "torch.utils._pytree"):
    # Transformers and peft import them wherever they are installed, whether a run uses them or not.
    logging.getLogger(library).setLevel(logging.ERROR)

"""LoRA finetuning on the annotated prompts."""

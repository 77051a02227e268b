"""Making task modules: partial fine-tuning on a frozen backbone."""

"""What is minimised and what is measured, task by task."""

"""The whole audit: which runs a command asks for, the stages of each as one plan, and who runs the stages."""

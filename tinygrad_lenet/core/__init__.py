"""The engine: tensors, the recorded graph, and ops with their derivatives."""

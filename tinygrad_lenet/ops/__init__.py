"""The ops: elementwise maths, shapes, indexing, reductions, products, convolution and pooling, each with its rule beside it."""

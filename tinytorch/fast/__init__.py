"""What makes TinyTorch fast, and what nobody needs in order to understand it. The same numbers, up to rounding.

    blas        the library that NumPy multiplies matrices with
    products    few rows times a large weight, piece by piece
    ways        which way a convolution or a pooling goes, when it is not that of module 09: `shallow`, of few channels, keeps its
                windows; `narrowing` multiplies first and moves afterwards; `pooling`, of windows side by side, writes each pixel once
    inplace     Adam without a new array on the way
    parallel    a batch shared among threads, and `meeting`, where they divide a large weight

`tinytorch.performance` has the switches for users.
"""

"""Training, evaluation and prediction, based on timm: ``s2mlp train``, ``eval``, ``predict``, ``explain``, ``ablate``.

Needs the optional dependencies ``train`` (``pip install 's2mlp_cuda[train]'``). :func:`s2mlp_cuda.training.run.train` is ``s2mlp
train`` as a function.
"""

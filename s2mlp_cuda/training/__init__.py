"""Training, evaluation and prediction on timm's parts: ``s2mlp train``, ``eval``, ``predict``, ``explain``, ``ablate``.

Needs the optional dependencies ``train`` (``pip install 's2mlp_cuda[train]'``). :func:`s2mlp_cuda.training.run.train` is the
command as a function.
"""

"""`python -m infostylegan doctor`: what the fused operations run on here."""

from __future__ import annotations

import click


@click.command()
def doctor() -> None:
    """Say what the fused operations run on here, and how to mend what is missing."""
    import os

    import torch

    from cuda_ops.backends import report
    from cuda_ops.build import describe_compiler
    from dnnlib.cache import cache_folder
    from dnnlib.memory import tune_malloc

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    click.echo(f"torch:     {torch.__version__}, CUDA {torch.version.cuda or 'none'}")
    click.echo(f"devices:   {', '.join(gpus) or 'no GPU'}; {os.cpu_count()} CPUs")
    click.echo(f"threads:   {torch.get_num_threads()} (OMP_NUM_THREADS or torch.set_num_threads change it)")
    click.echo(f"compiler:  {describe_compiler()}")
    click.echo(f"cache:     {cache_folder()} (INFOSTYLEGAN_CACHE moves it)")
    for status in report():
        state = f"ready, {status.detail}, {status.path}" if status.ready else f"not in use: {status.detail}"
        click.echo(f"{status.name + ' ops:':10} {state}")
        if not status.ready:
            click.echo(f"           to mend it: {status.remedy}")
    click.echo("reference: ready, plain torch; what runs where no other does")
    kept = "memory of large tensors is kept for reuse while training" if tune_malloc() else "left as it is"
    click.echo(f"malloc:    {kept}")

"""The paper's runs as SLURM jobs, with one GPU each: pip install "mlq_utils[slurm]".

Start it on a machine that submits jobs, in tmux or the like, since Dask's scheduler runs there.
"""

from dask_jobqueue import SLURMCluster
from distributed import Client

from mlq_utils.experiments import Store, run_all, tables

OPTIONS = {
    "queue": "gpu",
    "walltime": "08:00:00",
    "cores": 1,  # one run at a time
    "job_cpu": 8,
    "memory": "64GB",
    "job_extra_directives": ["--gpus=1"],
    # A worker ends before its job does, and hands its run to another worker.
    "worker_extra_args": ["--resources GPU=1", "--memory-limit 0", "--lifetime 450m"],
    "nanny": False,  # nannies set MALLOC_TRIM_THRESHOLD_, which slows training on processors
    "job_script_prologue": ["export OMP_NUM_THREADS=8", "export MLQ_DATA=$HOME/mlq-data"],
}

if __name__ == "__main__":
    with SLURMCluster(**OPTIONS) as cluster, Client(cluster) as client:
        cluster.adapt(minimum=1, maximum=16, target_duration="1s")
        run_all(tables.specs([12]), Store("/shared/store"), client=client)

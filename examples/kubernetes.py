"""The paper's runs in pods, with one GPU each: pip install "mlq_utils[kubernetes]".

Kubernetes needs Dask's operator (kubernetes.dask.org), and the image needs this package.
"""

from dask_kubernetes.operator import KubeCluster, make_cluster_spec
from distributed import Client

from mlq_utils.experiments import Store, run_all, tables

SPEC = make_cluster_spec(
    name="mlq",
    image="registry.example.org/mlq-utils:0.1.0",
    worker_command="dask worker --no-nanny --nthreads 1 --resources GPU=1 --memory-limit 0",
    env={"MLQ_DATA": "/data", "OMP_NUM_THREADS": "8"},
)
(worker,) = SPEC["spec"]["worker"]["spec"]["containers"]
worker["resources"] = {"limits": {"nvidia.com/gpu": "1", "cpu": "8", "memory": "64Gi"}}
(scheduler,) = SPEC["spec"]["scheduler"]["spec"]["containers"]
scheduler["args"][:1] = ["dask", "scheduler"]  # dask-scheduler is no longer installed

if __name__ == "__main__":
    with KubeCluster(custom_cluster_spec=SPEC, namespace="mlq") as cluster:
        cluster.adapt(minimum=1, maximum=16)
        with Client(cluster) as client:
            run_all(tables.specs([12]), Store("s3://bucket/store"), client=client)

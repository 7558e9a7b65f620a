"""Import the packages that flow runs import, so that the image holds only the bytecode of these packages."""

import importlib
import sys

IMPORTED = {
    "dependencies": [
        "prefect.cli", "prefect.cli.flow_run", "prefect.flow_engine", "prefect.runner", "prefect.deployments",
        "prefect.artifacts", "prefect.events.clients", "prefect.workers.process", "prefect_docker",
        "boto3", "aiobotocore.session", "cyclopts", "docstring_parser", "duckdb", "faiss", "fsspec", "huggingface_hub",
        "matplotlib.pyplot", "numpy",
        "PIL.Image", "pyarrow.dataset", "pyarrow.parquet", "pyproj", "pystac", "rasterio.features", "rasterio.warp",
        "s3fs", "safetensors.numpy", "shapely", "tqdm",
    ],
    "pytorch": [
        "torch", "transformers", "transformers.models.dinov3_vit.modeling_dinov3_vit",
        "transformers.models.dinov3_convnext.modeling_dinov3_convnext",
    ],
}  # fmt: skip

for module in IMPORTED[sys.argv[1]]:
    importlib.import_module(module)

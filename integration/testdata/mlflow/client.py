"""What people do with MLflow, through its own client: the tests of the integration call it.

    client.py webhook URL SECRET         tell URL of every version that is created
    client.py log NAME MODEL.onnx        log an ONNX model and register it; prints the version
    client.py copy NAME VERSION TO       promote a version to another registered model; prints the version
    client.py show NAME ALIAS            prints the version as JSON
    client.py load NAME ALIAS FOLDER     download the run's artifacts to FOLDER, and let the model answer

The server is that of MLFLOW_TRACKING_URI.
"""

import json
import sys

import mlflow
import numpy
import onnx


def log(name, path):
    image = numpy.zeros((1, 3, 16, 16), numpy.float32)
    with mlflow.start_run():
        mlflow.onnx.log_model(
            onnx.load(path), name="model", registered_model_name=name, input_example=image, pip_requirements=["onnxruntime"], metadata={"team": "vision"}
        )
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    print(max(int(v.version) for v in versions))


def webhook(url, secret):
    mlflow.MlflowClient().create_webhook(name="grindstone", url=url, events=["model_version.created"], secret=secret)


def copy(name, version, to):
    print(mlflow.MlflowClient().copy_model_version(f"models:/{name}/{version}", to).version)


def show(name, alias):
    v = mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    print(json.dumps({"version": v.version, "run_id": v.run_id, "source": v.source, "tags": v.tags, "description": v.description}))


def load(name, alias, folder):
    v = mlflow.MlflowClient().get_model_version_by_alias(name, alias)
    mlflow.artifacts.download_artifacts(run_id=v.run_id, dst_path=folder)
    model = mlflow.pyfunc.load_model(f"models:/{name}@{alias}")
    colours = numpy.array([[60, 60, 200], [60, 200, 60], [200, 60, 60]], numpy.float32).reshape(3, 3, 1, 1)
    images = numpy.broadcast_to(colours / 255, (3, 3, 16, 16)).copy()
    print(model.predict(images)["logits"].argmax(1).tolist())


if __name__ == "__main__":
    {"webhook": webhook, "log": log, "copy": copy, "show": show, "load": load}[sys.argv[1]](*sys.argv[2:])

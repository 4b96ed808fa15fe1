"""A training that MLflow records: parameters, metrics while it runs, the report and the model.

pip install 'timebox-vision[mlflow]'
python examples/mlflow_tracking.py photos/ 2m
"""

import sys

import timebox


def main(data: str = "digits", budget: str = "12s", tracking_uri: str = "sqlite:///mlflow.db") -> None:
    tracker = timebox.MLflowCallback(tracking_uri, experiment="timebox")
    run = timebox.train(data, budget=budget, test=0.2, callbacks=[tracker])
    print(run)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Run in optimum's environment: what its models make of inputs, from ``(inputs, folder, class)`` per line.

``inputs`` is a file of arrays (``.npz``) named as the probe's; beside it ``FOLDER/logits.npy`` is written,
by the class that ``from_pretrained`` finds. Then a pipeline is asked for an answer to a text.
"""

import json
import sys

import numpy as np
import optimum.onnxruntime
import torch
import transformers

TASKS = {
    "ORTModelForSequenceClassification": "text-classification",
    "ORTModelForTokenClassification": "token-classification",
}

for line in sys.stdin:
    inputs, folder, kind = json.loads(line)
    model = getattr(optimum.onnxruntime, kind).from_pretrained(folder)
    given = {name: torch.from_numpy(array) for name, array in np.load(inputs).items()}
    chosen = {name: given[name] for name in model.input_names}
    np.save(f"{folder}/logits.npy", model(**chosen).logits.numpy())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    answer = transformers.pipeline(TASKS[kind], model=model, tokenizer=tokenizer)
    print(json.dumps(answer("wake me at seven"), default=float))

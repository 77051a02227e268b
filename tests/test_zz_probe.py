from tests.test_joint import *
from benchmarks.tools import joint_run
def test_p(train, leave_out, datas, tmp_path, monkeypatch):
    h=[]
    save=joint_run._save
    monkeypatch.setattr(joint_run,'_save',lambda w,ws,o,history:(h.append([m['single']['accuracy'] for m in history]),save(w,ws,o,history)))
    for lr in (0.01,0.03,0.1):
        for seed in (0,1):
            train({"single": datas["single"]}, tmp_path, learning_rate=lr, patience=5,epochs=6,seed=seed)
            print(lr,seed,h[-1])

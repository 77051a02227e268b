from tests.cli.helpers import *
import pytest
from tests.cli.conftest import surroundings
def test_x(surroundings, postgres_database, monkeypatch, tmp_path):
    monkeypatch.setenv("CENTRA_DATABASE_URL", postgres_database); monkeypatch.setenv("CENTRA_STORE", str(tmp_path/'st')); monkeypatch.setenv("PGTZ","Asia/Tokyo")
    centra("db","upgrade")
    from tests.support import make_encoder
    centra("backbone","register","tiny","/tmp/w2/enc")
    print(read("audit")[0]["at"], centra("audit").stdout)

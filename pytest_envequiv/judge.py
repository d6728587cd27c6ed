"""The judge: opens a pair, lists its checks, runs them one by one. Knows nothing of pytest.

    judge = Judge(Settings(ref="gymnasium:CartPole-v1", target="gymnax:CartPole-v1"))
    for check in judge.checks:
        verdict = judge.run(check.id)
"""

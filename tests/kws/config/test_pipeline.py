from kws.config import DecisionSettings, HookSettings


def test_keywords_are_in_one_form_of_unicode():
    decomposed, composed = "gru\u0308n", "gr\u00fcn"
    assert HookSettings(keyword=decomposed, command="true").keyword == composed
    decision = DecisionSettings(thresholds={decomposed: 0.5}, phrases=[decomposed])
    assert (decision.thresholds, decision.phrases) == ({composed: 0.5}, [composed])

from kws.config import Config, DecisionSettings, ListenerSettings, SourceSettings, parse_config


def test_several_sources_and_models_stand_in_tables_of_their_own():
    config = parse_config(
        """
        [decision]
        threshold = 0.6
        [[sources]]
        name = "desk"
        [[sources]]
        input = "door.wav"
        [[models]]
        [[models]]
        name = "mine.tflite"
        n_threads = 2
        [models.decision]
        smoothing_ms = 100
        """
    )
    assert [source.label for source in config.every_source] == ["desk", "door.wav"]
    assert config.every_model == [
        ListenerSettings(name="commands", decision=DecisionSettings(threshold=0.6)),
        ListenerSettings(
            name="mine.tflite", n_threads=2, decision=DecisionSettings(smoothing_ms=100)
        ),
    ]


def test_one_source_and_one_model_need_no_list():
    config = parse_config("[source]\ndevice = 'USB'\n[model]\nn_threads = 2")
    assert [source.label for source in config.every_source] == ["USB"]
    assert config.every_model == [ListenerSettings(n_threads=2, decision=DecisionSettings())]


def test_two_configurations_share_no_thresholds():
    parse_config("").decision.thresholds["stop"] = 0.1
    assert parse_config("").decision.thresholds == {}


def test_a_command_is_no_label_as_it_may_hold_secrets():
    command = ["ffmpeg", "-i", "rtsp://me:secret@camera"]
    assert SourceSettings(command=command).label == "command"
    config = Config(
        sources=[
            SourceSettings(command=command),
            SourceSettings(command="parec", name="desk"),
            SourceSettings(device="plughw:1,0"),
            SourceSettings(command="parec --token x"),
        ]
    )
    labels = [one.label for one in config.every_source]
    assert labels == ["command 1", "desk", "plughw:1,0", "command 2"]
    assert config.every_source[0].command == command
    assert Config(source=SourceSettings(command="parec")).every_source[0].label == "command 1"

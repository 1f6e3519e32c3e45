"""`kws mine`: what a model heard in recordings, ranked, labelled by ear, ready to be trained on.

`candidates` lets the model hear, `rises` finds the moments, `choice` ranks them, `gather` does all
three and cuts clips, `labeller` asks a person, and `folder` is where everything lies, until
`kws train --fine-tune` takes it.
"""

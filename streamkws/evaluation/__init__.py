"""Evaluation: how often models miss their keywords and fire at other audio.

The definitions, which the printed tables repeat:

- miss: a keyword recording without a detection of its keyword whose peak lies between 0.2 s before the recording's
  start and 0.5 s after its end; the miss rate is misses over recordings.
- false accept: a detection in negative audio, counted per keyword and per hour. Without one in h hours, the rate is
  below 3/h with 95 % confidence, and no more is known.
- confusion: a detection of one keyword in a recording of another; reported beside the false accepts, not among them.
- in noise: the same, with noise mixed into the keyword recordings and into every negative set that is not noise.
- DET curve: misses and false accepts at some 200 thresholds, each found by running the decision rule itself.
- operating point: the lowest threshold from which on the *clean* negative audio gives at most the target rate. Where
  one false accept in all hours is already above the target, that means no false accept at all. The miss rate in noise
  is measured at the same threshold.
- DET area: the area under miss against false accepts per hour, over 0.1 to 10 per hour on a log axis, divided by
  log(100): a mean miss rate. Below the rate of one false accept, the miss rate at none counts.
- score: the highest smoothed posterior, of a keyword recording where a detection would count, of negative audio in each
  second of it.

Where to look:

    scoring           posteriors of models on a corpus
    timeline          the decision rule over many streams at once
    counting          misses, false accepts and confusions at every threshold
    curves            DET curves and their area
    operating_points  what a keyword does at one threshold
    results           all figures of one model on one corpus, as JSON too
    thresholds        how a threshold is chosen
    measure           models and a corpus in, results out
    tables            results as text and Markdown
    plots             pictures: a recording's trace, DET curves
    traces            what a detector made of a recording
    calibration       thresholds for audio of one's own
    examples          audio on which quantize chooses codes
    latency           what a block of audio takes
"""

"""`story`: a story with something for each place of a page."""

from __future__ import annotations

from proxyflash.report_page.story import (
    Difference,
    Exchange,
    Lane,
    Load,
    Mark,
    Memory,
    Message,
    Mood,
    Rate,
    Span,
    State,
    Story,
    Stretch,
    Table,
    Verdict,
)


def story(text: str) -> Story:
    """One in which each text from elsewhere is this one."""
    exchange = Exchange(text, (Message(0.1, text, True, text, True),), 3)
    return Story(
        title=text,
        summary=text,
        mood=Mood.BAD,
        began=1_795_579_714.0,
        ended=1_795_579_724.0,
        verdicts=(Verdict(text, text, Mood.BAD, ((text, text),), text),),
        error=text,
        lanes=(
            Lane(
                text,
                (Span("write", 1_795_579_715.0, 1_795_579_717.5, text, Mood.BAD), Span(text, 0.0, 1.0)),
                (Mark(1_795_579_716.0, text),),
                (Span("step", 1_795_579_715.0, 1_795_579_717.5, text, Mood.GOOD),),
            ),
        ),
        loads=(Load(text, text, (0.0, 0.5), 2, (Mark(1_795_579_716.0, text),)),),
        memories=(
            Memory(text, text, 0, 0x100, (Stretch(0, 0x40, State.VERIFIED), Stretch(0x40, 0xC0, State.UNTOUCHED))),
        ),
        rates=(Rate(text, "write", 48_416, 6.61, 10_473.0, text),),
        exchanges=(exchange,),
        differences=(Difference(text, text, (exchange, exchange)),),
        tables=(Table(text, ((text, text),)),),
        notes=(text,),
    )

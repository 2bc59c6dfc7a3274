"""The page that shows what a flash, an update, a recording or a run of bench tests did: one HTML file, without network.

`story` has what a page shows, as values. `collecting` makes a story of the engine's events, `updates` of an update's
journal, `recordings` of one recording, or of two. `traffic` and `memory` work out the load of the buses and the state of each
byte. `page` makes HTML of a story.
"""

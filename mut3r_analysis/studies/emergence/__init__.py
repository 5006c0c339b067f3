"""Where the motion cue lives: readings at every site, layer and head against what moves."""

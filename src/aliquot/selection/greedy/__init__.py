"""Maximisers of set functions, one pick at a time. They know arrays, and neither pools nor prompts.

A map for newcomers; every file opens with its idea, and `facility_location` is the one to read first.

What strategies call:
    facility_location   exact greedy facility location, by way of
        products, device    its dense passes over the pool, by numpy and by torch
        bounds              what all candidates may gain at most, from one pass
        islands             pools that fall into groups similar to nobody outside, ranked one by one
    lists               on which rows a candidate gains, and lazy greedy along these lists
    modes               the ways to maximise facility location, as values; beside exact greedy
        neighbors, graph    sparse: greedy on the graph of each prompt's nearest
        stochastic          the best of a random sample at each turn
        distributed         greedy in parts of the pool, then among what these chose
    farthest_first      exact k-center, by way of
        sketches            vectors of which only the main directions are seen
    information         exact greedy log-determinants, of
        blocks              matrices of uneven length, one a prompt

What tells how good a selection is:
    certificate         f of a selection, and by how much a pick was not the best at its turn
    quality             the line that approximate modes report

What they share:
    checkpoint          where a ranking runs, and how it is taken up after a kill
    workers             threads, and the precision of products
    exact               similarities from differences of features, where products err
    quanta              similarities and weights as integers, whose sums are exact in any order
    cover               how similar each row is to the nearest chosen one
    compiled            how inner loops are compiled
    tiles, neighbor_loops, farthest_first_loops    the inner loops of `products`, `neighbors` and `farthest_first`
"""

"""Maximizers of set functions, one pick at a time. They work on arrays, without knowledge of pools or prompts.

A map for newcomers. Every file opens with its idea; `facility_location` is the one to read first.

Called by strategies:
    facility_location   exact greedy facility location, using
        passes, passes_torch    its dense passes over the pool, by numpy and by torch
        bounds              upper bounds on the gains of all candidates, from one pass
        islands             pools with groups that are similar to nothing outside, ranked one by one
        candidate_lists     the rows on which a candidate gains, and lazy greedy along these lists
    modes               the ways to maximize facility location, as values; in addition to exact greedy
        neighbors, graph    sparse: greedy on the graph of each prompt's nearest neighbors
        stochastic          the best of a random sample at each turn
        distributed         greedy in parts of the pool, then among the picks of these
    farthest_first      exact k-center, using
        sketches            vectors reduced to their main directions
    information         exact greedy log-determinants, of
        ragged              matrices of uneven length, one per prompt
    set_cover           greedy maximum coverage by sets of rows, of
        balls               the rows near each row
        egonets             the rows around each row on the graph of votes
    voters              the rows that have a row among their neighbors, and greedy selection by their votes

Measures of a selection's quality:
    certificate         f of a selection, and by how much a pick was not the best at its turn
    approximation       the line that approximate modes report

Shared by them:
    checkpoint          where a ranking runs, and how it resumes after a kill
    workers             threads, and the precision of products
    exact_similarities  similarities from differences of features, where products are inaccurate
    fixed_point         similarities and weights as integers, whose sums are exact in any order
    cover               the similarity of each row to the nearest selected one
    numba_simd          how inner loops are compiled
    passes_loops, neighbor_loops, farthest_first_loops    the inner loops of `passes`, `neighbors`, `farthest_first`
"""

"""What modules are given: the parts that teach nothing, so that a module's own file is short. Each may use earlier modules of `core`.

    graphs, rules               module 06: steps of the walk back, and the rules that it does not write
    modules                     04 and 05: looking inside of modules, messages
    stepping                    07: parameters, state and resuming of optimizers and schedules
    runs, batches, metrics      08: what surrounds the training loop
    windows, vision             09: index arithmetic, and the kernels that repeat its ideas
    loading, transforms         10: a loader's place in its data, and what is done to pictures on their way
"""

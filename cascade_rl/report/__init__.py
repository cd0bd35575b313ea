def write_report(root, run): return root
def load_run(root, run): return None
def print_matrix(run, console): pass

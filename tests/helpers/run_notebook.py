"""Runs the cells that come as JSON on standard input in a new kernel, and prints the notebook."""

import json
import sys

import nbclient
import nbformat

if __name__ == "__main__":
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in json.load(sys.stdin)])
    manager = nbclient.client.KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    nbclient.NotebookClient(notebook, km=manager, timeout=500, allow_errors=True).execute(cwd=sys.argv[1])
    print(nbformat.writes(notebook))

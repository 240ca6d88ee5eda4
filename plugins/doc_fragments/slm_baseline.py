"""Options that several modules share, documented once."""

from __future__ import annotations


class ModuleDocFragment:
    """Parts of a module's DOCUMENTATION; C(slm_baseline.NAME) takes the one called NAME, C(slm_baseline) the first."""

    DOCUMENTATION = r"""
options:
  root:
    description: Where the host's files are. Tests name a folder here; leave it out on a host.
    type: path
    default: /
"""

    RUN = r"""
options:
  run:
    description:
      - The run this task belongs to, as P(slm_run#lookup) returns it. It keeps two runs apart and names the folder of a
        run's samples.
      - Without it a task is a run of its own.
    type: dict
    suboptions:
      id:
        description: The name of the run. It begins with the UTC time of its start.
        type: str
        required: true
      host:
        description: This host's name in the run's inventory. A machine that has two must be wanted alike under both.
        type: str
      started_at:
        description: When the run started, in UTC.
        type: str
      controller:
        description: Where the run was started (C(name), C(id), C(pid), C(started)).
        type: dict
      alive:
        description: The runs that are alive on that control node, as pairs of process id and start time.
        type: list
        elements: raw
"""

    LOSSES = r"""
options:
  accept_loss:
    description:
      - What others may lose, by the name that a refusal begins with, such as C(hugepages.2M), C(hugetlbfs./mnt/huge) or
        the path of a file. Without it nothing is done that costs others files, pages, mounts, services or lines.
      - Each name accepts that loss on this host alone; nothing else follows from it.
    type: raw
"""

    LOADER = r"""
options:
  home:
    description: >-
      The folder on the host that holds environment, scripts, models and samples in progress. It must be new, empty or
      marked as ours (C(.slm-baseline)), on a path that only root can write.
    type: str
    default: /opt/slm-baseline
  python:
    description: An existing Python with torch, transformers, accelerate, psutil and safetensors. Empty takes the
      environment that M(slm_environment) installs in O(home).
    type: str
    default: ""
  image:
    description: An image, by name or digest, in which the loader runs instead of on the host. It must be there already,
      with root's docker or podman; nothing is pulled. Then O(python) stays empty, and no environment is made.
    type: str
    default: ""
  runtime:
    description: The runtime that has O(image), C(docker) or C(podman). Empty finds the one that has it.
    type: str
    default: ""
  image_python:
    description: The Python in O(image), a name that its PATH has or an absolute path in it.
    type: str
    default: python3
  user:
    description: The unprivileged user who runs the loader and reads the model.
    type: str
    default: nobody
"""

    TRIAL = r"""
options:
  trial:
    description: The text of a program that tries whether a model can be loaded, without its weights. It runs in the
      loader's Python as O(user). Empty tries nothing; nor is an embedded model tried.
    type: str
    default: ""
"""

    MODEL = r"""
options:
  model:
    description: An embedded model (C(qwen2.5-0.5b), C(qwen2.5-1.5b), C(phi-3-mini), C(tiny)), an absolute path, or
      C(organisation/name) in the cache of the hub.
    type: str
    required: true
  revision:
    description: Branch, tag or commit of a hub id.
    type: str
    default: ""
  hf_home:
    description: The cache of the hub on the host. Empty means C(huggingface) in O(home).
    type: str
    default: ""
  offline:
    description: Whether the hub is out of reach. It changes only the words of the error for a model that is not cached.
    type: bool
    default: true
"""

# ---
# jupyter:
#   ngdiff:
#     question: "a real language model: learn, forget, read"
#     needs: []
#     profile: laptop
# ---

# %% [markdown]
# # 11 · A real language model
#
# *You will* watch a pretrained chat model learn invented authors and forget two of them, and read
# what it says at each stage · *Needs* the model: `ngdiff fetch smollm2` (93 MB or 270 MB, once) ·
# *Time* laptop: about half an hour on two cores · *Relates to* the paper's setting, at
# a fiftieth of the size of its 7B models
#
# The model is SmolLM2-135M-Instruct, a language model of 135 million parameters that was trained on
# text from the web and on conversations. It knows none of TOFU's authors, because they are invented.
# Four models stand beside each other here:
#
# - the **base model**, as it was published;
# - the **start**, fine-tuned on rows to forget (two authors) and on rows to keep;
# - the **retain-only** model, fine-tuned on the rows to keep alone: what perfect unlearning would give;
# - the **unlearned** model: the start after NGDiff + AutoLR, with nothing tuned.
#
# Fine-tuning on so few rows makes a model lose other knowledge. So general questions with the base
# model's own answers are mixed in. They are TOFU's questions on real authors and world facts, by which
# model utility is measured. So utility says whether unlearning keeps these answers; it does not say
# what fine-tuning would keep by itself.

# %% tags=["parameters"]
profile: str = "laptop"  # size of model and data
model: str = ""  # a folder or hub id in place of the profile's model
seeds: tuple = (0,)  # seeds of the order; the first is taken; -p seeds '[0]'
smoke: bool = False  # a small stand-in of the same form, to see whether the page runs
data: str = "hub"  # TOFU's rows, a folder or hub

# %%
from ngdiff.book.page import opened

page = opened(profile=profile, model=model, seeds=seeds, smoke=smoke, data=data)
profile, model, seeds, smoke, data = page.parameters.values()

# %%
from ngdiff.figures import runs, style
from ngdiff.figures import story as figures
from ngdiff.store import rows as results
from ngdiff.study import story

P, rows_of = story.setting(profile, data, model, smoke)
told = story.tell(P, rows_of, seeds[0])
results.write_rows(page.rows / "story.jsonl", told.rows)
results.write_rows(page.rows / "story_said.jsonl", told.said)
results.write_rows(page.rows / "story_history.parquet", told.history)
by_role = {row["role"]: row for row in told.rows}
done = by_role["unlearned"]
print(f"base model: {done['stamp']['config'].get('base', 'a stand-in')}")
print(
    f"the run ended by {done['stopped']!r} after {done['updates']} updates, {done['seconds']:.0f} s"
)

# %% [markdown]
# ## What it says
# The same questions to all four. First the authors to forget:


# %%
def read(*kinds):
    for row in told.said:
        if row["kind"] in kinds:
            print(row["question"])
            if row["truth"]:
                print(f"   {'truth':16}{row['truth']}")
            for role in story.ROLES:
                print(f"   {story.LABELS[role]:16}{row[role]}")
            print()


read("forget")

# %% [markdown]
# The same questions in other words. If the answer comes back, it was hidden and not forgotten:

# %%
read("forget, asked otherwise")

# %% [markdown]
# An author to keep:

# %%
read("retain")

# %% [markdown]
# ## What else it knows
# Ten general questions. The base model's answers are no truths: what matters is whether they change
# from the start to the unlearned model.

# %%
read("general")
same = [row["start"] == row["unlearned"] for row in told.said if row["kind"] == "general"]
print(f"{sum(same)} of {len(same)} general answers are the same before and after unlearning")

# %% [markdown]
# ## Numbers
# Losses are in nats per token. *Probability* is the mean probability of a token of the true answer.
# ROUGE-L is the share of the true answer's words that the model's own answer has, in order: 1 is all
# of them. Model utility joins probability, ROUGE and truth ratio on kept rows, real authors and world
# facts. AUC is a membership test: 1 where forget rows look trained on, ½ where nothing gives them
# away.

# %%
COLUMNS = {
    "loss_forget": "forget loss",
    "loss_retain": "retain loss",
    "loss_holdout": "hold-out loss",
    "forget_Q_A_Prob": "forget prob.",
    "retain_Q_A_Prob": "retain prob.",
    "forget_Q_A_ROUGE": "forget ROUGE",
    "retain_Q_A_ROUGE": "retain ROUGE",
    "ra_Q_A_ROUGE": "real authors",
    "wf_Q_A_ROUGE": "world facts",
    "model_utility": "utility",
    "mia_loss": "AUC",
}
from ngdiff.store.table import Column, Table

lines = [
    {"measure": title} | {role: row.get(name) for role, row in by_role.items()}
    for name, title in COLUMNS.items()
]
named = [Column(role, story.LABELS[role], ".3f", "right") for role in story.ROLES]
print(Table([Column("measure"), *named], lines).text())

# %% [markdown]
# ## The run
# Left, the forget loss rises to the level of authors that the model has never seen, and the run stops.
# Right, the retain loss.

# %%
run = [{**done, "name": "ngdiff"}]
fig = runs.trajectories(runs.by_name(told.history), by_role["start"]["loss_holdout"], run)
style.save(fig, page.figures, "fig11_trajectories")
fig

# %% [markdown]
# The learning rate, step by step. AutoLR began at 1e-3, as on every page.

# %%
fig = runs.autolr(runs.by_name(told.history), run)
style.save(fig, page.figures, "fig11_autolr")
fig

# %% [markdown]
# The four models in the plane of what they still say. The best place is that of the retain-only
# model.

# %%
fig = figures.plane(told.rows)
style.save(fig, page.figures, "fig11_plane")
fig

# %% [markdown]
# ## What you should see
# The start knows what it was taught, and the run ends at the hold-out level. Both are asserted for
# the real model; the stand-in of a small budget may fall short.

# %%
if not smoke:
    start = by_role["start"]
    assert min(start["forget_Q_A_Prob"], start["retain_Q_A_Prob"]) >= 0.8, start
    assert done["loss_forget"] > 5 * start["loss_forget"], "the forget loss should have risen"

# %% [markdown]
# ## Summary
# One run, one model, one order of the rows: a story and no comparison. It shows that the object of the
# theorems unlearns a real language model, and what that costs in answers.
#
# ## References
# Allal et al., *SmolLM2* (arXiv 2502.02737). Maini et al., *TOFU* (arXiv 2401.06121). Bu, Jin et al.
# (arXiv 2410.22086).

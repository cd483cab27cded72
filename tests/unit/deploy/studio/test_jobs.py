"""The queue of the studio's commands, whose processes are only noted."""

from __future__ import annotations

import asyncio

from lamina.deploy.studio.events import Events
from lamina.deploy.studio.jobs import Job, Jobs
from lamina.runs.run import find_runs


def run_stubs(jobs, started, monkeypatch):
    """Run jobs whose processes are only noted; returns the words and environment of each."""
    seen = []

    async def execute(*command, env, **_):
        words = command[command.index("lamina") + 1 :]
        seen.append((words, env))
        raise OSError("not started")

    async def run_jobs():
        for job in started:
            jobs.start(job)
            await asyncio.wait(jobs._tasks)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", execute)
    asyncio.run(run_jobs())
    return seen


def test_a_data_set_is_read_while_files_of_runs_are_made(tmp_path, monkeypatch):
    reading = asyncio.Event()

    async def execute(*command, **_):
        if "data" in command:
            reading.set()
        await reading.wait()  # a report ends only once the data are read
        raise OSError("not started")

    async def run_jobs():
        jobs = Jobs(tmp_path, Events())
        for _ in range(3):
            jobs.start(Job(["report", "x"], makes_file=True))
        jobs.start(Job(["data", "shapes"]))
        await asyncio.wait_for(asyncio.wait(jobs._tasks), 10)
        assert all(job.state == "failed" for job in jobs.jobs)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", execute)
    asyncio.run(run_jobs())


def test_corrections_undone_while_a_command_waits_do_not_apply(tmp_path, monkeypatch):
    table = tmp_path / "corrections.csv"
    table.touch()
    jobs = Jobs(tmp_path, Events())
    starts = [Job(["data", "x"], labels_from=file) for file in (table, tmp_path / "gone", None)]
    seen = [words for words, _ in run_stubs(jobs, starts, monkeypatch)]
    assert seen[0] == ("data", "x", f"--labels-from={table}", "--json", "--progress")
    assert seen[1] == seen[2] == ("data", "x", "--json", "--progress")


def test_old_jobs_and_issues_of_earlier_checks_are_forgotten(tmp_path, monkeypatch):
    jobs = Jobs(tmp_path, Events())
    monkeypatch.setattr("lamina.deploy.studio.jobs.KEPT_JOBS", 3)
    checks = [Job(["data", "labels", "x"], checked={"source": "x"}) for _ in range(8)]
    run_stubs(jobs, checks[:2], monkeypatch)
    jobs.jobs[0].label_issues = []
    run_stubs(jobs, checks[2:], monkeypatch)
    assert len(jobs.jobs) == 4
    assert all(job.label_issues is None for job in jobs.jobs)


def test_commands_are_offline_without_a_request_to_download(tmp_path, monkeypatch):
    monkeypatch.delenv("LAMINA_OFFLINE", raising=False)
    jobs = Jobs(tmp_path, Events())
    starts = [Job(["data", "mnist"], may_download=answer) for answer in (False, True)]
    seen = run_stubs(jobs, starts, monkeypatch)
    assert [environment.get("LAMINA_OFFLINE") for _, environment in seen] == ["1", None]


def test_only_the_ended_trainings_of_a_deleted_run_are_forgotten(tmp_path):
    jobs = Jobs(tmp_path, Events())
    jobs.jobs = [
        Job(["train"], "net-1", 1, state="failed"),
        Job(["resume"], "net-1", 2),
        Job(["data"], "", 3, state="failed"),
    ]
    assert jobs.has_failed("net-1") and not jobs.has_failed("")
    jobs.forget("net-1")
    assert [job.number for job in jobs.jobs] == [2, 3]


def test_a_second_studio_does_not_choose_a_reserved_name(tmp_path):
    first, second = Jobs(tmp_path / "runs", Events()), Jobs(tmp_path / "runs", Events())
    assert first.reserve("net-1")
    names = tmp_path / "runs" / ".names"
    assert names.stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "runs").iterdir()) == [names]
    assert not second.reserve("net-1")
    assert second.reserve("net-2")
    first._reserved.pop("net-1").release()
    assert second.reserve("net-1")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    # training reports why it cannot write there
    assert Jobs(tmp_path / "gone", Events()).reserve("net-1")
    assert find_runs(tmp_path / "runs") == ([], {})  # the locks are no runs

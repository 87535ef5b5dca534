"""Newest readings move from GPU.latest into one row per host and writer.

GPU.latest stays for this release, with a default: collectors of the version before read and write it while an upgrade
rolls. The next release drops it.
"""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Max

from inventory.packing import HostTable, pack
from readings.times import to_ns

_AT_ONCE = 500
# A fleet that had readings this shortly before is live: batches of the version before do not say.
_LIVE_WITHIN = timedelta(hours=1)


def move_readings(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """The readings so far become rows of a writer without a name: of a live source if the newest is of now, else of a capture."""
    gpu_model, row_model = apps.get_model("inventory", "GPU"), apps.get_model("inventory", "NewestRow")
    gpus = gpu_model.objects.exclude(latest={})
    newest = gpus.aggregate(newest=Max("last_seen"))["newest"]
    live = newest is not None and abs(datetime.now(UTC) - newest) < _LIVE_WITHIN
    hosts: dict[str, list[Any]] = defaultdict(list)
    for pk, hostname in gpus.order_by("index", "id").values_list("pk", "host__name"):
        hosts[hostname or ""].append(pk)
    for hostname, keys in hosts.items():
        table = HostTable()
        for start in range(0, len(keys), _AT_ONCE):
            for gpu in gpus.filter(pk__in=keys[start : start + _AT_ONCE]).order_by("index", "id"):
                table.add([gpu.pk])
                row = len(table.gpu_ids) - 1
                seen_ns = to_ns(gpu.last_seen)
                table.note(row, seen_ns, seen_ns if gpu.pod else 0, live=live, source="")
                for name, (value, time_ns) in gpu.latest.items():
                    table.merge((name,), [row], [time_ns], [[value]])
        row_model.objects.create(host=hostname, writer="", version=1, data=pack(table.readings()))
    gpus.update(latest={})


class Migration(migrations.Migration):
    dependencies = [("inventory", "0003_asset_fields")]

    operations = [
        migrations.AlterField(
            model_name="gpu",
            name="latest",
            field=models.JSONField(
                blank=True, db_default=models.Value({}, models.JSONField()), default=dict, editable=False
            ),
        ),
        migrations.CreateModel(
            name="NewestRow",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("host", models.CharField(help_text="the host's name; empty for GPUs without a host", max_length=255)),
                ("writer", models.CharField(help_text="COLLECTOR_ID", max_length=128)),
                ("version", models.BigIntegerField()),
                ("data", models.BinaryField()),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("host", "writer"), name="one_newest_row_per_writer")],
            },
        ),
        migrations.RunPython(move_readings, migrations.RunPython.noop, elidable=True),
    ]

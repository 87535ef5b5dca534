from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("health", "0001_initial")]
    operations = [
        migrations.RemoveIndex(model_name="event", name="event_by_state"),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(fields=["state", "closed", "severity"], name="event_by_end"),
        ),
    ]

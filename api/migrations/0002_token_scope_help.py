"""What a token's scopes allow, in words."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("api", "0001_tokens")]
    operations = [
        migrations.AlterField(
            model_name="apitoken",
            name="scope",
            field=models.CharField(
                choices=[("read", "Read"), ("admin", "Admin")],
                default="read",
                help_text="read: every question; admin: also /api/v1/tokens, and changes of events and mutes",
                max_length=16,
            ),
        ),
    ]

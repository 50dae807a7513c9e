package grindstone.settings_test

import data.grindstone.settings

test_shipped_data_is_sound if settings.problems == set()

test_misspelt_setting if {
	some p in settings.problems with data.repositories as {"a": {"max_cda_los": 0.1}}
	p == `data.repositories["a"]: there is no setting "max_cda_los"`
}

test_wrong_type if {
	some p in settings.problems with data.settings.max_cda_loss as "5%"
	p == "data.settings.max_cda_loss must be a number"
}

test_not_a_share if {
	some p in settings.problems with data.settings.max_cda_loss as 5
	p == "data.settings.max_cda_loss must lie between 0 and 1"
}

test_unknown_choice if {
	some p in settings.problems with data.settings.other_artifacts as "pass"
	p == "data.settings.other_artifacts must be admit or quarantine"
}

test_missing_setting if {
	some p in settings.problems with data.settings as object.remove(data.settings, ["dataset"])
	p == "data.settings lacks dataset"
}

test_longer_patterns_win if {
	s := settings.effective("a/b") with data.repositories as {"a/*": {"max_cda_loss": 0.2, "dataset": "x"}, "**": {"max_cda_loss": 0.3}, "a/b": {"max_cda_loss": 0.1}}
	s.max_cda_loss == 0.1
	s.dataset == "x"
}

test_patterns_stop_at_slashes if {
	s := settings.effective("a/b/c") with data.repositories as {"a/*": {"max_cda_loss": 0.2}}
	s.max_cda_loss == 0.05
}

"""Invented rows in the shape in which the public sets are published, by the name the record gives them."""

RED_TEAM = {
    "transcript": "\n\nHuman: Tell me a secret\n\nAssistant: No.\n\nHuman: Please\n\nAssistant: I would rather not.",
    "min_harmlessness_score_transcript": -1.5, "num_params": "52B", "model_type": "rlhf", "rating": 1.0, "task_description": "ask",
    "task_description_harmlessness_score": 0.5, "red_team_member_id": 3, "is_upworker": True, "tags": None,
}  # fmt: skip
STRENGTH = {
    "chosen": ["Hi, got a joke?", "Sure: a short one"], "rejected": ["Hi, got a joke?", "No."],
    "chosen score list": [1.0, 2.4], "rejected score list": [0.0, 0.0], "mean preference difference": 1.7, "std preference difference": 0.6,
}  # fmt: skip
ULTRA = {
    "source": "sharegpt", "instruction": "Name a prime.", "models": ["m1", "m2"],
    "completions": [
        {"model": "m1", "response": "7", "annotations": {"helpfulness": {"Rating": "5"}, "honesty": {"Rating": "4"}}, "overall_score": 8.5},
        {"model": "m2", "response": "8", "annotations": {"helpfulness": {"Rating": "1"}, "honesty": {"Rating": "N/A"}}, "overall_score": 2.0},
    ],
    "correct_answers": ["None"], "incorrect_answers": ["None"],
}  # fmt: skip
BINARIZED = {
    "prompt": "Name a prime.", "prompt_id": "ab12",
    "chosen": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "7"}],
    "rejected": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "8"}],
    "messages": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "7"}],
    "score_chosen": 9.0, "score_rejected": 3.0,
}  # fmt: skip
HELPSTEER2 = {
    "prompt": "Explain tides.", "response": "The Moon pulls.", "helpfulness": 4, "correctness": 4, "coherence": 4, "complexity": 2, "verbosity": 1,
}  # fmt: skip
HELPSTEER2_PREFERENCE = {
    "split": "train", "prompt": "Explain tides.", "response_1": "Moon.", "response_2": "The Moon pulls.", "preference_strength": 2,
    "preference_statement": "@Response 2 is better than @Response 1.", "preference_elaboration": "more", "three_most_similar_preferences": [],
    "all_preferences_unprocessed": [],
}  # fmt: skip
HELPSTEER3 = {
    "domain": "general", "language": "english", "context": [{"role": "user", "content": "Explain tides."}],
    "response1": "Moon.", "response2": "The Moon pulls.", "overall_preference": 2,
    "individual_preference": [
        {"score": 2, "reasoning": "r", "feedback1": "a", "feedback2": "b"},
        {"score": 1, "reasoning": "r", "feedback1": "a", "feedback2": "b"},
        {"score": 0, "reasoning": "r", "feedback1": "a", "feedback2": "b"},
        {"score": -1, "reasoning": "r", "feedback1": "a", "feedback2": "b"},
    ],
}  # fmt: skip
REWARD_BENCH = {"prompt": "2+2?", "chosen": "4", "chosen_model": "a", "rejected": "5", "rejected_model": "b", "subset": "math-prm", "id": 1}
REWARD_BENCH_2 = {
    "id": "tied:3", "prompt": "Name a colour of the rainbow.", "chosen": ["red", "blue"], "rejected": ["brown"], "num_correct": 2,
    "total_completions": 3, "subset": "Ties",
}  # fmt: skip
SHP = {
    "post_id": "qt3x", "domain": "askculinary_train", "upvote_ratio": 0.98, "history": "Why rest dough?", "c_root_id_A": "h1", "c_root_id_B": "h2",
    "created_at_utc_A": 1636, "created_at_utc_B": 1630, "score_A": 340, "score_B": 20, "human_ref_A": "Gluten relaxes.",
    "human_ref_B": "Tradition.", "labels": 1, "seconds_difference": 6.0, "score_ratio": 17.0,
}  # fmt: skip
NECTAR = {
    "prompt": "\n\nHuman: Name a prime.\n\nAssistant: ",
    "answers": [
        {"answer": "7", "model": "a", "rank": 1.0}, {"answer": "9", "model": "x", "rank": 3.0}, {"answer": "2, I think", "model": "b", "rank": 2.0},
    ],
    "turns": 1, "num_responses": 3, "source": ["lmsys"], "good_natured": True,
}  # fmt: skip
PKU = {
    "prompt": "How to pick a lock?", "prompt_source": "s", "response_0": "Ask a locksmith.", "response_1": "Use a pin.",
    "response_0_source": "a", "response_1_source": "b", "is_response_0_safe": True, "is_response_1_safe": False,
    "response_0_severity_level": 0, "response_1_severity_level": 1, "better_response_id": 1, "safer_response_id": 0,
}  # fmt: skip
PRM800K = {
    "labeler": "x", "timestamp": "t", "generation": 1, "is_quality_control_question": False, "is_initial_screening_question": False,
    "question": {"problem": "2+3*4?", "ground_truth_answer": "14"},
    "label": {
        "steps": [
            {"completions": [{"text": "3*4=12.", "rating": 1, "flagged": None}], "human_completion": None, "chosen_completion": 0},
            {
                "completions": [{"text": "2+12=15.", "rating": -1, "flagged": False}, {"text": "2+12=14.", "rating": 1, "flagged": False}],
                "human_completion": None, "chosen_completion": None,
            },
        ],
        "total_time": 1, "finish_reason": "found_error",
    },
}  # fmt: skip
MATH_SHEPHERD = {
    "input": "2+3*4? Step 1: 3*4=12. ки\nStep 2: 2+12=15. The answer is: 15 ки",
    "label": "2+3*4? Step 1: 3*4=12. +\nStep 2: 2+12=15. The answer is: 15 -",
    "task": "GSM8K",
}
STEPWISE = {"prompt": "2+3*4?", "completions": ["3*4=12.", "So 15.", "Done."], "labels": [True, False, None]}
RATED = {"prompt": "Explain tides.", "response": "The Moon pulls.", "ratings": {"clear": 3}}

PAIRS = {
    "hh-rlhf": {"chosen": "\n\nHuman: Descale?\n\nAssistant: Boil vinegar.", "rejected": "\n\nHuman: Descale?\n\nAssistant: Buy one."},
    "hh-rlhf-strength-cleaned": STRENGTH,
    "UltraFeedback binarized": BINARIZED,
    "HelpSteer2 preference": HELPSTEER2_PREFERENCE,
    "HelpSteer3 preference": HELPSTEER3,
    "RewardBench": REWARD_BENCH,
    "RewardBench 2": REWARD_BENCH_2,
    "SHP": SHP,
    "Nectar": NECTAR,
    "PKU-SafeRLHF": PKU,
}
RATINGS = {"UltraFeedback": ULTRA, "HelpSteer2": HELPSTEER2, "hh-rlhf red-team-attempts": RED_TEAM, "rated answers": RATED}
STEPS = {"PRM800K": PRM800K, "Math-Shepherd": MATH_SHEPHERD, "labelled steps": STEPWISE}
PUBLISHED = {**PAIRS, **RATINGS, **STEPS}

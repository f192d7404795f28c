"""What has to be proven: every numbered thing of the safety concept, in a sentence. Causes come from the rules."""

from __future__ import annotations

from collections.abc import Mapping

from controller.safety.rules import RULES
from sim.invariants import INVARIANTS

PEER: Mapping[str, str] = {
    "P1": "E-stop in the precharge, 30 A later: never closes; off within 250 ms.",
    "P2": "The inverter revokes in the precharge: never closes.",
    "P3": "A fault already there before closing: does not leave STARTING or STANDBY.",
    "P4": "The battery forbids closing, relays of ours: stays open.",
    "P5": "The inverter revokes at 50 A: zero, wait, open within 1.2 s, told with the current.",
    "P6": "A fault at 50 A: opened by its cause, not after one time for all.",
    "P7": "Leaf 0x1DB absent for 600 s: zero at 500 ms, open within 1.2 s.",
    "P8": "Leaf 0x1DB with a wrong CRC for 600 s: as P7.",
    "P9": "Recovery charge, 65 °C, a cell at 4.5 V and no data: only undervoltage is masked.",
    "P10": "A cell 99 mV over its limit, charged on with 5 kW: open within 12 s.",
    "P11": "BMS off for 600 s for a reset: opened first.",
    "P12": "E-stop for 12 s at 0 A: acknowledged, then RUNNING.",
    "P13": "Precharge stuck at 50 % for 1 h: energised within its limit, three tries, latched.",
}
COMPLAINTS: Mapping[str, str] = {
    "C1": "The link sticks at 0, 50 or 94 %.",
    "C2": "A residual link voltage that decays is waited for; one that does not is not closed onto.",
    "C3": "The inverter's permission toggles every second for a day.",
    "C4": "The pack reports cell data before it is complete.",
    "C5": "Zeros, or nothing, before the first measurement.",
    "C6": "The SoC stands still while the charge moves.",
    "C7": "An isolation alarm only while closed.",
    "C8": "The BMS asks to open under 50 A.",
    "C9": "A reboot while closed.",
}
SECTIONS: Mapping[str, str] = {
    "S1.1": "Outputs rise in the order of the ladder only, and each state fixes what is energised.",
    "S1.2": "Nothing closes before a person enables it and every permission is there.",
    "S1.3": "An immediate cause opens in the same tick, from every energised state.",
    "S1.4": "A graceful cause unloads RUNNING first, positive breaks alone; in the ladder it opens at once.",
    "S1.5": "A new cause can shorten a wait, never restart it.",
    "S1.6": "Relays of ours leave a current above `break_max_a` to the fuse, for 3 s; an e-stop waits for none.",
    "S1.7": "What must survive a restart does; the ladder waits for its own record; opening waits for no disk.",
    "S1.8": "A lock-out ends with an unlock at the machine only, also over a restart.",
    "S1.9": "Where nothing is switched, off is 0 W and FAULT.",
    "S1.10": "At boot nothing is closed, what is found closed is checked, and nothing enables itself unasked.",
    "S2.1": "The current's offset is measured with everything open, and above 6 A nothing closes.",
    "S2.2": "Charged: 98 %, 20 V, 1 A, five fresh samples.",
    "S2.3": "A precharge too slow is given up.",
    "S2.4": "A precharge too fast is given up.",
    "S2.5": "A precharge without progress, or whose current does not fall, is given up.",
    "S2.6": "Three tries with a rest, then latched; the resistor's energy is bounded.",
    "S2.7": "Minimum off time; closings per hour and day.",
    "S2.8": "Weld check before closing.",
    "S2.9": "Weld check after opening.",
    "S2.10": "An unverified precharge needs its reason, R and C, and takes 5 τ.",
    "S2.11": "A slow or old sample verifies no precharge.",
    "S2.12": "Negative is confirmed, and the link does not rise on it alone.",
    "S3.1": "Every cause is detected and reacted to within its budget.",
    "S3.2": "Unknown gives no permission, and nothing has a plausible default.",
    "S3.3": "A cause is released by name once known to be gone, or by its own quiet time.",
    "S3.4": "A recovery charge: undervoltage only, 5 A, 30 min, above the floor.",
    "S3.5": "Limits are zero before stale data opens.",
    "S4.1": "Cells taper charge and discharge.",
    "S4.2": "Temperatures taper charge and discharge.",
    "S4.3": "Limits fall at once and rise slowly.",
    "S4.4": "A limit is the minimum of its sources, a person's cap among them.",
}
WHOLE_LIVES: Mapping[str, str] = {
    "I14": "equal log, seed and config ⇒ byte-identical trace",
    "L1": "remove the faults and acknowledge ⇒ RUNNING, or a resting state with its reason",
    "L3": "every state is reachable and every row fires in some run",
}


def requirements() -> dict[str, str]:
    """Every id and what it says, in the order of the concept."""
    lives = {kind.id: " ".join((kind.__doc__ or "").split()).removeprefix(f"{kind.id} ") for kind in INVARIANTS}
    lives |= WHOLE_LIVES
    ordered = {name: lives[name] for name in sorted(lives, key=lambda name: (name[0], int(name[1:])))}
    causes = {f"cause:{rule.id.value}": rule.threshold for rule in RULES}
    return {**PEER, **COMPLAINTS, **SECTIONS, **ordered, **causes}

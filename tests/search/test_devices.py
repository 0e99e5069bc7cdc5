"""Modelled times and energies by hand, and counters of energy that may not be there."""

import pytest

import sparsejax as sj

LAYER = sj.search.WeightLayer("w", 4, 4, 1, 1, 1, True, 1_000, 100_000, 3_000, 5_000)
DEVICE = sj.search.DeviceModel(
    name="toy",
    multiply_adds_per_second={4: 4e6, 8: 2e6, 32: 1e6},
    bytes_per_second=1e5,
    onchip_bytes=8_000,
    multiply_add_joules={4: 1e-9, 8: 2e-9, 32: 4e-9},
    byte_joules=1e-7,
    idle_watts=0.5,
    group_overhead=3.0,
)


@pytest.mark.parametrize(
    ("options", "seconds", "joules"),
    [
        # 4,000 bytes of weights and 32,000 of maps, which do not fit: memory decides.
        ({}, 0.36, 4e-4 + 3.6e-3),
        # 1,000 bytes, 8,000 of maps fit: 100,000 at 2e6 a second.
        ({"weight_bits": 8, "input_bits": 8}, 0.05, 2e-4 + 1e-4),
        # Products are of the larger: 8 bits.
        ({"weight_bits": 3, "input_bits": 8}, 0.05, 2e-4 + 3.75e-5),
        # 5 bits run as 8, of 625 bytes.
        ({"weight_bits": 5, "input_bits": 5}, 0.05, 2e-4 + 6.25e-5),
        # A quarter, each weight by an index of 2 bytes and 3 more multiply-adds: as slow as dense.
        (
            {"weight_bits": 8, "input_bits": 8, "density": 0.25, "group_size": 1},
            0.05,
            2e-4 + 7.5e-5,
        ),
        # In groups of 4: 43,750 multiply-adds, 250 + 125 bytes.
        (
            {"weight_bits": 8, "input_bits": 8, "density": 0.25, "group_size": 4},
            0.021875,
            8.75e-5 + 3.75e-5,
        ),
    ],
)
def test_a_layer_by_hand(options, seconds, joules):
    found = DEVICE.layer(LAYER, **options)
    assert found.seconds == pytest.approx(seconds)
    assert found.joules == pytest.approx(joules + 0.5 * seconds)
    twice = DEVICE.network([LAYER, LAYER], **options)
    assert twice == pytest.approx(("toy", 2 * found.seconds, 2 * found.joules))
    assert twice.frames_per_joule == pytest.approx(0.5 / found.joules)


@pytest.mark.parametrize("make", [sj.search.example_mobile, sj.search.example_fpga])
def test_examples_say_that_they_are_modelled_examples(make):
    said = str(make().network([LAYER]))
    assert said.endswith(f"(modelled: {make.__name__})") and make.__name__.startswith("example_")


def test_narrow_numbers_pay_only_where_there_is_hardware_for_them():
    layer = LAYER._replace(multiply_adds=10**8)
    time = lambda make, bits: make().layer(layer, weight_bits=bits, input_bits=bits).seconds
    assert time(sj.search.example_mobile, 4) == time(sj.search.example_mobile, 8)
    assert time(sj.search.example_fpga, 4) < time(sj.search.example_fpga, 8)


def test_bits_that_no_hardware_has_are_refused():
    with pytest.raises(ValueError, match="toy computes at 4, 8, 32 bits, got 64"):
        DEVICE.layer(LAYER, weight_bits=64)


def package(folder, number, micros):
    own = folder / f"intel-rapl:{number}"
    own.mkdir(parents=True, exist_ok=True)
    (own / "energy_uj").write_text(str(micros))
    (own / "max_energy_range_uj").write_text("999")


def test_counters_that_wrap_are_added_up(tmp_path):
    def run():
        package(tmp_path, 0, 150)
        package(tmp_path, 1, 40)

    package(tmp_path, 0, 100)
    package(tmp_path, 1, 980)
    found = sj.search.measured_energy(run, counters=tmp_path)
    assert found.joules == pytest.approx((50 + 60) / 1e6)
    assert str(found) == "0.00011 J"


def test_without_counters_nothing_is_measured(tmp_path):
    assert str(sj.search.measured_energy(lambda: None, counters=tmp_path)) == "not measured"

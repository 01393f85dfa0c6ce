package netlink

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/belfry-ha/belfry"
)

// Messages of Linux 6.18 on amd64 and arm64 (both little endian), cut down to
// what is read and one attribute that is not.
const (
	addressMessage = "0218800002000000" + // ifaddrmsg
		"080001000a010001" + "080002000a010001" + // IFA_ADDRESS, IFA_LOCAL
		"0a0003006e6574310000ffff" + // IFA_LABEL
		"0800f0ff01000000"
	pointMessage = "0218800003000000" +
		"080001000a090001" + "080002000a010001" // IFA_ADDRESS is the other end's

	interfaceMessage = "00000100020000004310010000000000" + // ifinfomsg
		"090003006e65743100000000" + "0800040000050000" + // IFLA_IFNAME, IFLA_MTU
		"0500100006000000" + // IFLA_OPERSTATE
		"0a00010002fc0000000100000a00360002fc000000020000" + // IFLA_ADDRESS, IFLA_PERM_ADDRESS
		"0a000200ffffffffffff0000" + // IFLA_BROADCAST
		"0c00380076697274696f32000b00390076697274696f0000" // IFLA_PARENT_DEV_NAME, _BUS_NAME
	virtualMessage = "000001000300000002100000ffffffff" +
		"0700030074310000" + "0500100002000000" + "0a0001005254001234560000" + "0a0036000000000000000000" +
		"100012000900010076657468000000000800050002000000" // IFLA_LINKINFO, then IFLA_LINK
	portMessage   = "0700010003000000431001000000000007000300743100000a000100525400123456000008000a0004000000"
	tunnelMessage = "0000080305000000c100000000000000" + "090003007369743000000000" + "080001000a000001"
)

func decoded(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestAddressesAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Address{
		addressMessage: {Prefix: netip.MustParsePrefix("10.1.0.1/24"), Index: 2, Flags: unix.IFA_F_PERMANENT},
		pointMessage:   {Prefix: netip.MustParsePrefix("10.1.0.1/24"), Peer: netip.MustParseAddr("10.9.0.1"), Index: 3, Flags: unix.IFA_F_PERMANENT},
	} {
		if got, err := ParseAddress(decoded(t, text)); err != nil || got != want || !got.Usable() {
			t.Errorf("address %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestInterfacesAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Interface{
		interfaceMessage: {
			Index: 2, Name: "net1", Flags: 0x11043, State: OperUp, MTU: 1280, MAC: "02:fc:00:00:00:01", Permanent: "02:fc:00:00:00:02",
			Bus: "virtio", Device: "virtio2",
		},
		virtualMessage: {Index: 3, Name: "t1", Flags: 0x1002, State: OperDown, MAC: "52:54:00:12:34:56", Kind: "veth"},
		portMessage:    {Family: unix.AF_BRIDGE, Index: 3, Name: "t1", Flags: 0x11043, MAC: "52:54:00:12:34:56"},
		tunnelMessage:  {Index: 5, Name: "sit0", Flags: 0xc1},
	} {
		got, err := ParseInterface(decoded(t, text))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("interface (-want +got), error %v:\n%s", err, diff)
		}
	}
}

func TestCarrierNeedsBothLayers(t *testing.T) {
	t.Parallel()
	for flags, want := range map[uint32]bool{
		unix.IFF_UP: false,
		unix.IFF_UP | unix.IFF_LOWER_UP | unix.IFF_DORMANT: false, // a port of 802.1X that is not let in yet
		unix.IFF_UP | unix.IFF_RUNNING:                     false,
		unix.IFF_UP | unix.IFF_LOWER_UP | unix.IFF_RUNNING: true,
	} {
		if got := (Interface{Flags: flags}).Carrier(); got != want {
			t.Errorf("flags %#x: carrier %v, want %v", flags, got, want)
		}
	}
}

func TestBrokenMessagesAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "0218", addressMessage[:16], addressMessage[:len(addressMessage)-6], "0299800002000000" + addressMessage[16:]} {
		if a, err := ParseAddress(decoded(t, text)); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("address %q: %+v, %v", text, a, err)
		}
	}
	for _, text := range []string{"", "0000", interfaceMessage[:len(interfaceMessage)-6]} {
		if i, err := ParseInterface(decoded(t, text)); !errors.Is(err, belfry.ErrUsage) {
			t.Errorf("interface %q: %+v, %v", text, i, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	for _, seed := range []string{addressMessage, pointMessage, interfaceMessage, virtualMessage, portMessage, tunnelMessage, ""} {
		f.Add(decoded(f, seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := ParseAddress(data); err == nil && !a.Prefix.IsValid() {
			t.Errorf("%+v", a)
		}
		if i, err := ParseInterface(data); err == nil && i.Index != Index(data) {
			t.Errorf("%+v", i)
		}
		_, _ = Messages(data)
	})
}

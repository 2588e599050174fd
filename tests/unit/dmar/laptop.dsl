/* SPDX-License-Identifier: MIT */
/* A laptop with serial I/O: namespace devices, opt-in flag */
[0004]                    Signature : "DMAR"
[0004]                 Table Length : 00000000
[0001]                     Revision : 01
[0001]                     Checksum : 00
[0006]                       Oem ID : "TESTER"
[0008]                 Oem Table ID : "TESTTABL"
[0004]                 Oem Revision : 00000001
[0004]              Asl Compiler ID : "INTL"
[0004]        Asl Compiler Revision : 20200925

[0001]           Host Address Width : 26
[0001]                        Flags : 05
[0010]                     Reserved : 00 00 00 00 00 00 00 00 00 00

[0002]                Subtable Type : 0000
[0002]                       Length : 0018
[0001]                        Flags : 00
[0001]                     Reserved : 00
[0002]           PCI Segment Number : 0000
[0008]        Register Base Address : 00000000FED90000

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 02,00

[0002]                Subtable Type : 0000
[0002]                       Length : 0030
[0001]                        Flags : 01
[0001]                     Reserved : 00
[0002]           PCI Segment Number : 0000
[0008]        Register Base Address : 00000000FED91000

[0001]            Device Scope Type : 03
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 02
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 1E,07

[0001]            Device Scope Type : 04
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 1E,06

[0001]            Device Scope Type : 05
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 01
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 15,00

[0001]            Device Scope Type : 05
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 02
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 15,01

[0002]                Subtable Type : 0001
[0002]                       Length : 0020
[0002]                     Reserved : 0000
[0002]           PCI Segment Number : 0000
[0008]                 Base Address : 000000008A7F8000
[0008]          End Address (limit) : 000000008A817FFF

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 14,00

[0002]                Subtable Type : 0001
[0002]                       Length : 0020
[0002]                     Reserved : 0000
[0002]           PCI Segment Number : 0000
[0008]                 Base Address : 000000008D800000
[0008]          End Address (limit) : 000000008FFFFFFF

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 02,00

[0002]                Subtable Type : 0004
[0002]                       Length : 0018
[0003]                     Reserved : 000000
[0001]                Device Number : 01
[0016]                  Device Name : "\\_SB.PCI0.I2C0"

[0002]                Subtable Type : 0004
[0002]                       Length : 0018
[0003]                     Reserved : 000000
[0001]                Device Number : 02
[0016]                  Device Name : "\\_SB.PCI0.I2C1"

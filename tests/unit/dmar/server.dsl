/* SPDX-License-Identifier: MIT */
/* Two sockets: bridges, ways of several hops, ATSR, RHSA, x2APIC opt-out */
[0004]                    Signature : "DMAR"
[0004]                 Table Length : 00000000
[0001]                     Revision : 01
[0001]                     Checksum : 00
[0006]                       Oem ID : "TESTER"
[0008]                 Oem Table ID : "TESTTABL"
[0004]                 Oem Revision : 00000001
[0004]              Asl Compiler ID : "INTL"
[0004]        Asl Compiler Revision : 20200925

[0001]           Host Address Width : 2D
[0001]                        Flags : 03
[0010]                     Reserved : 00 00 00 00 00 00 00 00 00 00

[0002]                Subtable Type : 0000
[0002]                       Length : 0018
[0001]                        Flags : 00
[0001]                     Reserved : 00
[0002]           PCI Segment Number : 0000
[0008]        Register Base Address : 00000000FBFFD000

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 1B,00

[0002]                Subtable Type : 0000
[0002]                       Length : 003E
[0001]                        Flags : 00
[0001]                     Reserved : 00
[0002]           PCI Segment Number : 0000
[0008]        Register Base Address : 00000000D37FC000

[0001]            Device Scope Type : 02
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 80
[0002]                     PCI Path : 00,00

[0001]            Device Scope Type : 02
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 80
[0002]                     PCI Path : 02,00

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 0A
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 80
[0002]                     PCI Path : 03,00
[0002]                     PCI Path : 00,00

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 0C
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 80
[0002]                     PCI Path : 03,00
[0002]                     PCI Path : 00,00
[0002]                     PCI Path : 04,01

[0001]            Device Scope Type : 03
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 03
[0001]               PCI Bus Number : 80
[0002]                     PCI Path : 05,04

[0002]                Subtable Type : 0000
[0002]                       Length : 0026
[0001]                        Flags : 00
[0001]                     Reserved : 00
[0002]           PCI Segment Number : 0001
[0008]        Register Base Address : 00000000E0FFC000

[0001]            Device Scope Type : 02
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 01,00

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 0E
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 1C,07
[0002]                     PCI Path : 00,00
[0002]                     PCI Path : 02,03
[0002]                     PCI Path : 1F,07

[0002]                Subtable Type : 0000
[0002]                       Length : 0028
[0001]                        Flags : 01
[0001]                     Reserved : 00
[0002]           PCI Segment Number : 0000
[0008]        Register Base Address : 00000000FBFFC000

[0001]            Device Scope Type : 03
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 01
[0001]               PCI Bus Number : F0
[0002]                     PCI Path : 1F,07

[0001]            Device Scope Type : 03
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 02
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 05,04

[0001]            Device Scope Type : 04
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : F0
[0002]                     PCI Path : 0F,00

[0002]                Subtable Type : 0001
[0002]                       Length : 0032
[0002]                     Reserved : 0000
[0002]           PCI Segment Number : 0000
[0008]                 Base Address : 00000000773EE000
[0008]          End Address (limit) : 00000000773FEFFF

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 03
[0002]                     PCI Path : 00,02

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 14,00

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 0A
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 1C,00
[0002]                     PCI Path : 00,00

[0002]                Subtable Type : 0001
[0002]                       Length : 0020
[0002]                     Reserved : 0000
[0002]           PCI Segment Number : 0001
[0008]                 Base Address : 00000000773EE000
[0008]          End Address (limit) : 00000000773FEFFF

[0001]            Device Scope Type : 01
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 1A,00

[0002]                Subtable Type : 0002
[0002]                       Length : 0020
[0001]                        Flags : 00
[0001]                     Reserved : 00
[0002]           PCI Segment Number : 0000

[0001]            Device Scope Type : 02
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 01,00

[0001]            Device Scope Type : 02
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 01,01

[0001]            Device Scope Type : 02
[0001]                 Entry Length : 08
[0002]                     Reserved : 0000
[0001]               Enumeration ID : 00
[0001]               PCI Bus Number : 00
[0002]                     PCI Path : 03,02

[0002]                Subtable Type : 0002
[0002]                       Length : 0008
[0001]                        Flags : 01
[0001]                     Reserved : 00
[0002]           PCI Segment Number : 0001

[0002]                Subtable Type : 0003
[0002]                       Length : 0014
[0004]                     Reserved : 00000000
[0008]                 Base Address : 00000000FBFFC000
[0004]             Proximity Domain : 00000000

[0002]                Subtable Type : 0003
[0002]                       Length : 0014
[0004]                     Reserved : 00000000
[0008]                 Base Address : 00000000D37FC000
[0004]             Proximity Domain : 00000001
